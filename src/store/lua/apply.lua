-- apply: merges a frame into its buckets, or changes nothing.
--
-- KEYS  1 head, 2 due, 3 tombstones, 4 slices, 5 aside,
--       then for each bucket: its hash, the index of open buckets of its period;
--       then, if the frame says which buckets meet: the index of each period
-- ARGV  1-3 see clock.lua
--       4 'refuse' or 'reopen'   5 policy's key TTL   6 prefix of slice keys
--       7 writer field  8 sequence  9 checksum  10 received (elapsed)
--       11 version of the rules it was made by   12 number of keys, then (id, fingerprint, ttl) each
--       number of buckets, then for each: name, start, end, number of sources n, n field names,
--       their n states in one string
--       then '' or what lengths.lua wants to know of the buckets that meet
-- RETURNS  {'LOST'} | {'DUP', checksum} | {'GAP', last} | {'STALE'} |
--          {'SEEN', index, fingerprint, ...} | {'RULES', newest version} | {'CLOSING', name, generation, revision, ...} |
--          {'LATE', index, ...} | {'MIXED'} | {'UNLIKE', index, index of the source, length held, ...} |
--          {'OVERFLOW', field} | {'APPLIED', states set aside}

local late, ttl, slice_prefix, writer = ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7]
local sequence, checksum, received = tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10])
local KEYS_AT = 12
local WRITER_TTL = 8 * 86400000
local DAY = 86400000

if not epoch then
  return { 'LOST' }
end

-- A writer's record is 'sequence checksum elapsed'.
local record = redis.call('HGET', KEYS[1], writer)
local last, last_checksum = 0, '0'
if record then
  last, last_checksum = string.match(record, '^(%d+) (%d+)')
  last = tonumber(last)
end
if sequence <= last then
  work_when_full()
  save_head()
  return { 'DUP', last_checksum }
end
if sequence > last + 1 then
  return { 'GAP', text(last) }
end
if elapsed - received > ttl / 2 then
  return { 'STALE' }
end

-- Keys that have been counted, in any slice that has not expired.
local key_count = tonumber(ARGV[KEYS_AT])
local at = KEYS_AT + 1
if key_count > 0 then
  local ids = {}
  for i = 1, key_count do
    ids[i] = ARGV[at + (i - 1) * 3]
  end
  local seen = { 'SEEN' }
  for _, slice in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. text(elapsed), '+inf')) do
    for first = 1, key_count, CHUNK do
      local last_id = math.min(first + CHUNK - 1, key_count)
      local found = redis.call('HMGET', slice_prefix .. slice, unpack(ids, first, last_id))
      for i = 1, #found do
        if found[i] then
          seen[#seen + 1] = text(first + i - 2)
          seen[#seen + 1] = found[i]
        end
      end
    end
  end
  if #seen > 1 then
    -- Replicas confirm writes: without one of our own the wait for them would be over at once, whoever
    -- has what was counted.
    work_when_full()
    save_head()
    return seen
  end
end
local keys_at = at
at = at + key_count * 3

local bucket_count = tonumber(ARGV[at])
at = at + 1

-- Made under other rules than those of one of its buckets; see is_outdated() in store/rules.rs.
local made, newest = tonumber(ARGV[11]), rules and rules.number or 0
if made ~= newest and bucket_count > 0 then
  local outdated = made > newest or made + 1 < newest
  local bucket_at = at
  for _ = 1, outdated and 0 or bucket_count do
    outdated = outdated or tonumber(ARGV[bucket_at + 1]) >= rules.from
    bucket_at = bucket_at + 5 + tonumber(ARGV[bucket_at + 3])
  end
  if outdated then
    return { 'RULES', text(newest) }
  end
end

-- The buckets and their lives.
local buckets = {}
local any_vector = false
local closing, too_late = { 'CLOSING' }, { 'LATE' }
for i = 1, bucket_count do
  local n = tonumber(ARGV[at + 3])
  local bucket = {
    key = KEYS[4 + 2 * i],
    index = KEYS[5 + 2 * i],
    name = ARGV[at],
    start = ARGV[at + 1],
    ending = tonumber(ARGV[at + 2]),
    fields_at = at + 3,
    n = n,
    states = ARGV[at + 4 + n],
  }
  if #bucket.states == n * SCALAR_BYTES then
    bucket.state = function(j)
      return string.sub(bucket.states, (j - 1) * SCALAR_BYTES + 1, j * SCALAR_BYTES)
    end
  else
    any_vector = true
    local parts, from = {}, 1
    for j = 1, n do
      local d = length_of(string.sub(bucket.states, from, from + 3))
      local size = 4 + 8 * (1 + 4 * d + d * (d + 1))
      parts[j] = string.sub(bucket.states, from, from + size - 1)
      from = from + size
    end
    bucket.state = function(j)
      return parts[j]
    end
  end
  bucket.life = read_life(bucket.key)
  if bucket.life and bucket.life.closing then
    closing[#closing + 1] = bucket.name
    closing[#closing + 1] = text(bucket.life.generation)
    closing[#closing + 1] = text(bucket.life.revision)
  end
  if late == 'refuse' and now >= bucket.ending + lateness then
    too_late[#too_late + 1] = text(i - 1)
  end
  buckets[i] = bucket
  at = at + 5 + n
end
if #closing > 1 then
  return closing
end
if #too_late > 1 then
  return too_late
end
if bucket_count > 0 and (any_vector or vectors) then
  if ARGV[at] == '' then
    return { 'MIXED' }
  end
  local clashes = unlike(buckets, at)
  if #clashes > 1 then
    return clashes
  end
end

-- Everything is computed before the first write.
local aside = {}
for _, bucket in ipairs(buckets) do
  local states, all_scalar = bucket.states, #bucket.states == bucket.n * SCALAR_BYTES
  local fields = {}
  for i = 1, bucket.n do
    fields[i] = ARGV[bucket.fields_at + i]
  end
  local chunks, field = combine(bucket.key, bucket.name, fields, function(i, old)
    if not old then
      return bucket.state(i)
    end
    if all_scalar then
      local merged = merge_scalar(old, states, (i - 1) * SCALAR_BYTES + 1)
      if merged then
        return merged
      end
    end
    return merge(old, bucket.state(i))
  end, aside)
  if not chunks then
    return { 'OVERFLOW', field }
  end
  bucket.chunks = chunks
  if not bucket.life then
    local generation = epoch
    -- What may have closed and been forgotten is late by any rule but one that came later.
    local over = now >= bucket.ending + lateness or (forgotten and bucket.ending <= forgotten)
    if over or redis.call('ZSCORE', KEYS[3], bucket.name) then
      generation = next_generation()
    end
    bucket.generation = generation
  end
end

if any_vector and not vectors then
  save_head('vectors', 1)
end
save_head('generation', text(highest), writer, text(sequence) .. ' ' .. checksum .. ' ' .. text(elapsed))
for _, bucket in ipairs(buckets) do
  write_bucket(bucket)
end
write_aside(KEYS[5], aside)

-- A repetition may come until a key's TTL is over and be on its way for half of the policy's, so keys are kept for
-- both, in slices that expire as a whole: four in the time of the usual ones, a day for longer ones.
local on_the_way = math.floor(ttl / 2)
for i = 1, key_count do
  local id = ARGV[keys_at + (i - 1) * 3]
  local fingerprint = ARGV[keys_at + (i - 1) * 3 + 1]
  local key_ttl = tonumber(ARGV[keys_at + (i - 1) * 3 + 2])
  local length = key_ttl <= ttl and math.max(math.floor((ttl + on_the_way) / 4), 1) or DAY
  local slice = text(math.ceil((elapsed + key_ttl + on_the_way) / length) * length)
  redis.call('HSET', slice_prefix .. slice, id, fingerprint)
  redis.call('ZADD', KEYS[4], slice, slice)
end

-- A new writer pays for forgetting the old ones.
if sequence == 1 then
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    local used = string.sub(fields[i], 1, 2) == 'w:' and string.match(fields[i + 1], '(%d+)$')
    if used and elapsed - tonumber(used) > WRITER_TTL then
      redis.call('HDEL', KEYS[1], fields[i])
    end
  end
end
return { 'APPLIED', text(#aside / 2) }
