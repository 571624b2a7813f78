-- open: the lives of some periods in a range, with the states of some sources, in one look.
--
-- KEYS  the index of open buckets of each period
-- ARGV  1 prefix of bucket keys   2 from  3 to ('(' before it)   4 most lives
--       5... fields of the sources
-- RETURNS  {until or '', name, generation, revision, acked, state or nil of each source, ...}

local prefix, from, to, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local names, starts, sorted = {}, {}, {}
for i = 1, #KEYS do
  local found = redis.call('ZRANGEBYSCORE', KEYS[i], from, to, 'WITHSCORES', 'LIMIT', 0, limit + 1)
  for j = 1, #found, 2 do
    names[#names + 1] = found[j]
    starts[#starts + 1] = tonumber(found[j + 1])
    sorted[#starts] = starts[#starts]
  end
end
-- The limit is for all periods together, so the first start beyond it is the same for each.
table.sort(sorted)
local till = sorted[limit + 1]
local answer = { till and string.format('%.0f', till) or '' }
for i, name in ipairs(names) do
  if not till or starts[i] < till then
    local fields = redis.call('HMGET', prefix .. name, 'generation', 'revision', 'acked', unpack(ARGV, 5))
    -- A hash that somebody deleted by hand is no life; the next seal removes its entry.
    if fields[1] then
      answer[#answer + 1] = name
      for j = 1, #ARGV - 1 do
        answer[#answer + 1] = fields[j]
      end
    end
  end
end
return answer
