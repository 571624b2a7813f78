-- The tables of the Postgres sink; docs/postgres.md explains them. A migration that has been released is
-- never changed: a new file follows it, and src/sink/postgres/schema.rs lists it.

-- Ids and periods are compared byte by byte, in the order in which the service pages through them.
CREATE TABLE bucket_stats (
    source       text COLLATE "C"  NOT NULL,
    period       text COLLATE "C"  NOT NULL,
    bucket_start timestamptz       NOT NULL,
    bucket_end   timestamptz       NOT NULL,
    count        bigint            NOT NULL,
    mean         double precision  NOT NULL,
    var_pop      double precision  NOT NULL,
    var_samp     double precision,
    min          double precision  NOT NULL,
    max          double precision  NOT NULL,
    sum          double precision  NOT NULL,
    sum_sq       double precision  NOT NULL,
    state        bytea             NOT NULL,
    base         bytea,
    generation   bigint            NOT NULL,
    gen_count    bigint            NOT NULL,
    revision     bigint            NOT NULL,
    written_at   timestamptz       NOT NULL DEFAULT now(),
    PRIMARY KEY (source, period, bucket_start)
) WITH (fillfactor = 90);

-- For questions about all sources in a span of time. Rows come about in the order of time, so that this
-- index stays small and costs next to nothing to keep.
CREATE INDEX bucket_stats_by_time ON bucket_stats USING brin (bucket_start) WITH (pages_per_range = 32, autosummarize = on);

COMMENT ON TABLE bucket_stats IS 'Statistics of one source in one bucket of time per row, written by meanwhile. Read them from here or from the view stats; do not change them.';
COMMENT ON COLUMN bucket_stats.source IS 'Where the readings come from';
COMMENT ON COLUMN bucket_stats.period IS 'Length of the bucket: 1m, 1h, 1d, ...';
COMMENT ON COLUMN bucket_stats.bucket_start IS 'First instant of the bucket';
COMMENT ON COLUMN bucket_stats.bucket_end IS 'First instant after the bucket';
COMMENT ON COLUMN bucket_stats.count IS 'Number of readings';
COMMENT ON COLUMN bucket_stats.mean IS 'Mean of the readings, correct to the last bit';
COMMENT ON COLUMN bucket_stats.var_pop IS 'Population variance, never negative';
COMMENT ON COLUMN bucket_stats.var_samp IS 'Sample variance; null for a single reading';
COMMENT ON COLUMN bucket_stats.min IS 'Least reading';
COMMENT ON COLUMN bucket_stats.max IS 'Greatest reading';
COMMENT ON COLUMN bucket_stats.sum IS 'Sum of the readings, rounded once';
COMMENT ON COLUMN bucket_stats.sum_sq IS 'Sum of their squares, rounded once';
COMMENT ON COLUMN bucket_stats.state IS 'The exact sums of all readings in the bucket: what meanwhile itself reads back';
COMMENT ON COLUMN bucket_stats.base IS 'The exact sums without the newest life of the bucket; null if it had only one';
COMMENT ON COLUMN bucket_stats.generation IS 'Number of the newest life of the bucket; first part of the version of the row';
COMMENT ON COLUMN bucket_stats.gen_count IS 'Readings in that life; second part of the version';
COMMENT ON COLUMN bucket_stats.revision IS 'Revision of that life; third part of the version';
COMMENT ON COLUMN bucket_stats.written_at IS 'When this version of the row was written, by the clock of this server';

CREATE TABLE sources (
    id           text COLLATE "C"  PRIMARY KEY,
    first_bucket timestamptz       NOT NULL,
    last_bucket  timestamptz       NOT NULL
) WITH (fillfactor = 70);

COMMENT ON TABLE sources IS 'Every source that bucket_stats has had rows of';
COMMENT ON COLUMN sources.first_bucket IS 'Start of its first bucket, over all periods';
COMMENT ON COLUMN sources.last_bucket IS 'Start of its last bucket, over all periods';

CREATE TABLE dead_letters (
    source       text COLLATE "C"  NOT NULL,
    period       text COLLATE "C"  NOT NULL,
    bucket_start timestamptz       NOT NULL,
    bucket_end   timestamptz       NOT NULL,
    count        bigint,
    mean         double precision,
    var_pop      double precision,
    var_samp     double precision,
    min          double precision,
    max          double precision,
    sum          double precision,
    sum_sq       double precision,
    state        bytea             NOT NULL,
    base         bytea,
    generation   bigint            NOT NULL,
    gen_count    bigint            NOT NULL,
    revision     bigint            NOT NULL,
    refused_at   timestamptz       NOT NULL DEFAULT now(),
    reason       text              NOT NULL,
    PRIMARY KEY (source, period, bucket_start, bucket_end, generation)
);

COMMENT ON TABLE dead_letters IS 'Rows that bucket_stats refused, through a constraint or a trigger that somebody added, with the reason. SELECT bring_back_dead_letters() once the cause is mended.';
COMMENT ON COLUMN dead_letters.reason IS 'What the server said';
COMMENT ON COLUMN dead_letters.refused_at IS 'When the row was last refused';

-- A life that is the first of its row, or a correction of it, can be put back by its version. One that is to be
-- added to another life stays here: SQL cannot add the exact sums.
CREATE FUNCTION bring_back_dead_letters() RETURNS bigint LANGUAGE sql AS $$
    WITH returned AS (
        INSERT INTO bucket_stats AS held (
               source, period, bucket_start, bucket_end, count, mean, var_pop, var_samp, min, max, sum, sum_sq, state, base,
               generation, gen_count, revision)
        SELECT DISTINCT ON (source, period, bucket_start)
               source, period, bucket_start, bucket_end, count, mean, var_pop, var_samp, min, max, sum, sum_sq, state, base,
               generation, gen_count, revision
        FROM dead_letters ORDER BY source, period, bucket_start, generation
        ON CONFLICT (source, period, bucket_start) DO UPDATE SET
               count = excluded.count,
               mean = excluded.mean,
               var_pop = excluded.var_pop,
               var_samp = excluded.var_samp,
               min = excluded.min,
               max = excluded.max,
               sum = excluded.sum,
               sum_sq = excluded.sum_sq,
               state = excluded.state,
               gen_count = excluded.gen_count,
               revision = excluded.revision,
               written_at = now()
        WHERE held.bucket_end = excluded.bucket_end AND held.generation = excluded.generation
          AND held.base IS NULL AND excluded.base IS NULL
          AND (held.gen_count, held.revision) < (excluded.gen_count, excluded.revision)
        RETURNING source, period, bucket_start, bucket_end, generation
    ), known AS (
        INSERT INTO sources AS held (id, first_bucket, last_bucket)
        SELECT source, min(bucket_start), max(bucket_start) FROM returned GROUP BY source
        ON CONFLICT (id) DO UPDATE SET first_bucket = least(held.first_bucket, excluded.first_bucket),
               last_bucket = greatest(held.last_bucket, excluded.last_bucket)
    ), gone AS (
        DELETE FROM dead_letters AS letter
        WHERE (source, period, bucket_start, bucket_end, generation) IN (TABLE returned)
           OR EXISTS (SELECT FROM bucket_stats AS row
               WHERE (row.source, row.period, row.bucket_start, row.bucket_end, row.generation)
                   = (letter.source, letter.period, letter.bucket_start, letter.bucket_end, letter.generation)
                 AND (row.gen_count, row.revision) >= (letter.gen_count, letter.revision))
        RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

COMMENT ON FUNCTION bring_back_dead_letters() IS 'Puts dead letters into bucket_stats, and removes those that are there by now; returns how many have gone. What stays belongs to a bucket with a row of another life.';

CREATE VIEW stats AS
SELECT source, period, bucket_start, bucket_end, count, mean,
       sqrt(var_pop) AS stddev_pop, sqrt(var_samp) AS stddev_samp,
       min, max, sum, var_pop, var_samp, sum_sq
FROM bucket_stats;

COMMENT ON VIEW stats IS 'bucket_stats for people: with standard deviations, without what only meanwhile needs';
COMMENT ON COLUMN stats.stddev_pop IS 'Population standard deviation';
COMMENT ON COLUMN stats.stddev_samp IS 'Sample standard deviation; null for a single reading';
