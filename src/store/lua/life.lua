-- What scripts know of a life, besides its states: fields of the bucket's hash.
--
-- generation  number of the life          acked    revision the sink has, 0 if none
-- revision    version of its content      dirty    since when it differs from the revision, 0 if not
-- closing     1 from the first chunk of its close on

-- Fields of a bucket that are not states, once it is closing.
local LIFE_FIELDS = 5

-- The life in a bucket's hash, nil if there is none.
local function read_life(key)
  local fields = redis.call('HMGET', key, 'generation', 'revision', 'acked', 'dirty', 'closing')
  if not fields[1] then
    return nil
  end
  return {
    generation = tonumber(fields[1]),
    revision = tonumber(fields[2]),
    acked = tonumber(fields[3]),
    dirty = tonumber(fields[4]),
    closing = fields[5] == '1',
  }
end

-- The number of the lives that begin in this call, above all given before: one for all of them, or the
-- numbers of a large import would run ahead of the clock, and of another store's. Goes into the head with
-- save_head.
local begun
local function next_generation()
  if not begun then
    begun = math.max(highest + 1, now)
    highest = begun
  end
  return begun
end

-- When the rollover must look at a dirty life of a bucket with this end: on time at end + grace,
-- later when no reading came for `grace`, at the latest a minute after the first.
local function due_at(bucket_end, dirty)
  return math.max(bucket_end + grace, math.min(now + grace, dirty + MAX_DIRTY))
end

-- Whether an open bucket of these indexes (KEYS from..to) starts in [from_time, to_time).
local function any_open(first, last, from_time, to_time)
  for i = first, last do
    if redis.call('ZCOUNT', KEYS[i], from_time, '(' .. to_time) > 0 then
      return true
    end
  end
  return false
end
