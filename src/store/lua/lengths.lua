-- Finds the sources that a frame would bring together with readings of another length. Only for shards that have
-- had vectors and for frames that bring some.

-- Numbers per reading of a state; nil if it is none that readings lead to.
local function length_of(state)
  if not state or #state < 4 then
    return nil
  end
  local head = struct.unpack('<I4', state)
  return head % 65536 == SCALAR % 65536 and math.floor(head / 65536) or nil
end

-- The hashes of the lives of an index within one of the spans {start, end}.
local function lives_within(index, spans, prefix)
  local found, lives = {}, {}
  for _, span in ipairs(spans) do
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', index, span[1], '(' .. span[2])) do
      if not found[name] and tonumber(string.match(name, '(-?%d+)$')) <= tonumber(span[2]) then
        found[name] = true
        lives[#lives + 1] = prefix .. name
      end
    end
  end
  return lives
end

-- Looks for fields in a life and notes the length of what they hold. Returns those it does not have.
local function look_into(key, fields, lengths)
  local missing = {}
  for first = 1, #fields, CHUNK do
    local last = math.min(first + CHUNK - 1, #fields)
    local states = redis.call('HMGET', key, unpack(fields, first, last))
    for i = first, last do
      lengths[fields[i]] = length_of(states[i - first + 1])
      if not lengths[fields[i]] then
        missing[#missing + 1] = fields[i]
      end
    end
  end
  return missing
end

-- Looks for fields in the lives of a family until each is found once; indexes are the last `count` KEYS, and
-- most sources are found by the first of them.
local function find_lengths(family, count, prefix, fields)
  for i = 1, count do
    if #fields > 0 and not family.lives[i] then
      family.lives[i] = lives_within(KEYS[#KEYS - count + i], family.spans, prefix)
    end
    for _, key in ipairs(#fields > 0 and family.lives[i] or {}) do
      fields = look_into(key, fields, family.lengths)
      if #fields == 0 then
        return
      end
    end
  end
end

-- {'UNLIKE', index of the bucket, index of the source, length held, ...}. ARGV from `at`: number of periods, prefix
-- of bucket keys, then for each bucket: number of spans, start and end of each.
local function unlike(buckets, at)
  local count, prefix = tonumber(ARGV[at]), ARGV[at + 1]
  at = at + 2
  local answer, families = { 'UNLIKE' }, {}
  for i, bucket in ipairs(buckets) do
    local spans, id = {}, {}
    for j = 1, tonumber(ARGV[at]) do
      spans[j] = { ARGV[at + 2 * j - 1], ARGV[at + 2 * j] }
      id[j] = ARGV[at + 2 * j - 1] .. ':' .. ARGV[at + 2 * j]
    end
    at = at + 1 + 2 * #spans
    id = table.concat(id, ' ')
    local family = families[id]
    if not family then
      family = { lengths = {}, lives = {}, spans = spans }
      families[id] = family
    end
    local fields = {}
    for j = 1, bucket.n do
      local field = ARGV[bucket.fields_at + j]
      if not family.lengths[field] then
        fields[#fields + 1] = field
      end
    end
    find_lengths(family, count, prefix, fields)
    for j = 1, bucket.n do
      local field, length = ARGV[bucket.fields_at + j], length_of(bucket.state(j))
      local held = family.lengths[field]
      if held and held ~= length then
        answer[#answer + 1] = text(i - 1)
        answer[#answer + 1] = text(j - 1)
        answer[#answer + 1] = text(held)
      end
      family.lengths[field] = held or length
    end
  end
  return answer
end
