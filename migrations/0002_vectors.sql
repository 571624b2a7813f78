-- Readings that are vectors. Rows of numbers leave the new columns null, and cost what they did; rows of vectors leave
-- those of a number null.

ALTER TABLE bucket_stats
    ALTER COLUMN mean DROP NOT NULL,
    ALTER COLUMN var_pop DROP NOT NULL,
    ALTER COLUMN min DROP NOT NULL,
    ALTER COLUMN max DROP NOT NULL,
    ALTER COLUMN sum DROP NOT NULL,
    ALTER COLUMN sum_sq DROP NOT NULL,
    ADD COLUMN means double precision[],
    ADD COLUMN covar_pop double precision[],
    ADD COLUMN covar_samp double precision[],
    ADD COLUMN corr double precision[],
    ADD COLUMN mins double precision[],
    ADD COLUMN maxs double precision[],
    ADD COLUMN sums double precision[],
    ADD COLUMN sum_products double precision[];

ALTER TABLE dead_letters
    ADD COLUMN means double precision[],
    ADD COLUMN covar_pop double precision[],
    ADD COLUMN covar_samp double precision[],
    ADD COLUMN corr double precision[],
    ADD COLUMN mins double precision[],
    ADD COLUMN maxs double precision[],
    ADD COLUMN sums double precision[],
    ADD COLUMN sum_products double precision[];

COMMENT ON COLUMN bucket_stats.means IS 'Of vectors: mean of each component. The columns of numbers are null then';
COMMENT ON COLUMN bucket_stats.covar_pop IS 'Of vectors: population covariances; the variances are on the diagonal';
COMMENT ON COLUMN bucket_stats.covar_samp IS 'Of vectors: sample covariances; null for a single reading';
COMMENT ON COLUMN bucket_stats.corr IS 'Of vectors: correlations; null entries where one of the two does not vary';
COMMENT ON COLUMN bucket_stats.mins IS 'Of vectors: least value of each component';
COMMENT ON COLUMN bucket_stats.maxs IS 'Of vectors: greatest value of each component';
COMMENT ON COLUMN bucket_stats.sums IS 'Of vectors: sum of each component';
COMMENT ON COLUMN bucket_stats.sum_products IS 'Of vectors: sums of the products of the components with one another';

-- As before, with the new columns.
CREATE OR REPLACE FUNCTION bring_back_dead_letters() RETURNS bigint LANGUAGE sql AS $$
    WITH returned AS (
        INSERT INTO bucket_stats AS held (
               source, period, bucket_start, bucket_end, count, mean, var_pop, var_samp, min, max, sum, sum_sq, state, base,
               generation, gen_count, revision, means, covar_pop, covar_samp, corr,
               mins, maxs, sums, sum_products)
        SELECT DISTINCT ON (source, period, bucket_start)
               source, period, bucket_start, bucket_end, count, mean, var_pop, var_samp, min, max, sum, sum_sq, state, base,
               generation, gen_count, revision, means, covar_pop, covar_samp, corr,
               mins, maxs, sums, sum_products
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
               means = excluded.means,
               covar_pop = excluded.covar_pop,
               covar_samp = excluded.covar_samp,
               corr = excluded.corr,
               mins = excluded.mins,
               maxs = excluded.maxs,
               sums = excluded.sums,
               sum_products = excluded.sum_products,
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

CREATE OR REPLACE VIEW stats AS
SELECT source, period, bucket_start, bucket_end, count, mean,
       sqrt(var_pop) AS stddev_pop, sqrt(var_samp) AS stddev_samp,
       min, max, sum, var_pop, var_samp, sum_sq,
       means, covar_pop, covar_samp, corr, mins, maxs, sums, sum_products
FROM bucket_stats;
