-- change: makes a version of the rules the newest, or takes back versions that were lost.
--
-- KEYS  1 head, 2 rules, 3 due, 4 tombstones, then the index of open buckets of each period
-- ARGV  1-3 see clock.lua   4 'change' or 'restore'   5 the `from` that is for all time
--       6 versions that are kept, 7 bytes of them   then of each version: number, from, text
-- RETURNS  {'DONE', number of the newest} | {'OTHER', number of the newest} | {'EARLY', after}

local newest, newest_from = 0, nil
if rules then
  newest, newest_from = rules.number, rules.from
end
local first = 8

if ARGV[4] == 'change' then
  if tonumber(ARGV[first]) ~= newest + 1 then
    return { 'OTHER', text(newest) }
  end
  -- What was never there has no bucket that is open, remembered or forgotten.
  local has_had = redis.call('ZCARD', KEYS[3]) > 0 or redis.call('ZCARD', KEYS[4]) > 0 or forgotten
  if newest > 0 or has_had or ARGV[first + 1] ~= ARGV[5] then
    local after = math.max(now, newest_from or now)
    for i = 5, #KEYS do
      local last = redis.call('ZRANGE', KEYS[i], -1, -1, 'WITHSCORES')
      after = math.max(after, tonumber(last[2] or after))
    end
    if tonumber(ARGV[first + 1]) <= after then
      return { 'EARLY', text(after) }
    end
  end
end

local taken = {}
for i = first, #ARGV, 3 do
  if tonumber(ARGV[i]) > newest then
    taken[#taken + 1] = i
    newest, newest_from = tonumber(ARGV[i]), ARGV[i + 1]
  end
end
if #taken == 0 then
  return { 'DONE', text(newest) }
end
save_head('rules', text(newest) .. ' ' .. newest_from)
for _, i in ipairs(taken) do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
end

-- Beyond the limits the oldest go.
local sizes, numbers = {}, {}
local versions = redis.call('HGETALL', KEYS[2])
for i = 1, #versions, 2 do
  numbers[#numbers + 1] = tonumber(versions[i])
  sizes[tonumber(versions[i])] = #versions[i + 1] - #string.match(versions[i + 1], '^-?%d+ ')
end
table.sort(numbers, function(a, b)
  return a > b
end)
local bytes = 0
for i, number in ipairs(numbers) do
  bytes = bytes + sizes[number]
  if i > 1 and (i > tonumber(ARGV[6]) or bytes > tonumber(ARGV[7])) then
    redis.call('HDEL', KEYS[2], text(number))
  end
end
return { 'DONE', text(newest) }
