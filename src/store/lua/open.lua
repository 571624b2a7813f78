-- open: the lives of some periods in a range, with the states of some sources, in one look.
--
-- KEYS  the index of open buckets of each period
-- ARGV  1 prefix of bucket keys   2 from  3 to ('(' before it)   4 most lives   5 bytes of states after which it ends
--       6... fields of the sources
-- RETURNS  {until or '', name, generation, revision, acked, state or nil of each source, ...}

local prefix, from, to, limit, room = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local names, starts, order = {}, {}, {}
for i = 1, #KEYS do
  local found = redis.call('ZRANGEBYSCORE', KEYS[i], from, to, 'WITHSCORES', 'LIMIT', 0, limit + 1)
  for j = 1, #found, 2 do
    names[#names + 1] = found[j]
    starts[#starts + 1] = tonumber(found[j + 1])
    order[#starts] = #starts
  end
end
-- The limits are for all periods together, so the first start beyond them is the same for each.
table.sort(order, function(a, b)
  return starts[a] < starts[b]
end)
local till = order[limit + 1] and starts[order[limit + 1]]
local lives = {}
for n, i in ipairs(order) do
  if room <= 0 and starts[i] > starts[order[n - 1]] then
    till = starts[i]
  end
  if till and starts[i] >= till then
    break
  end
  lives[i] = redis.call('HMGET', prefix .. names[i], 'generation', 'revision', 'acked', unpack(ARGV, 6))
  for j = 4, #ARGV - 2 do
    room = room - #(lives[i][j] or '')
  end
end
local answer = { till and string.format('%.0f', till) or '' }
for i, name in ipairs(names) do
  local fields = lives[i]
  -- A hash that somebody deleted by hand is no life; the next seal removes its entry.
  if fields and fields[1] then
    answer[#answer + 1] = name
    for j = 1, #ARGV - 2 do
      answer[#answer + 1] = fields[j]
    end
  end
end
return answer
