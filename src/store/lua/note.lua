-- note: adds rows to the error log, or to the counts of those that are there.
--
-- KEYS  1 rows, 2 their order in time
-- ARGV  1 rows that are kept   then of each row: id, how often, when first, when last, what is known of it
-- RETURNS  nothing

local keep = tonumber(ARGV[1])
for i = 2, #ARGV, 5 do
  local id, times, first, last, row = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  redis.call('HINCRBY', KEYS[1], 'n:' .. id, times)
  local known = redis.call('HGET', KEYS[1], 'f:' .. id)
  if not known or tonumber(first) < tonumber(known) then
    redis.call('HSET', KEYS[1], 'f:' .. id, first)
  end
  -- What is known of the last time, whoever comes last to say it.
  local newest = redis.call('ZSCORE', KEYS[2], id)
  if not newest or tonumber(newest) <= tonumber(last) then
    redis.call('HSET', KEYS[1], 'r:' .. id, row)
    redis.call('ZADD', KEYS[2], last, id)
  end
end
local beyond = redis.call('ZCARD', KEYS[2]) - keep
if beyond > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, beyond - 1)) do
    redis.call('HDEL', KEYS[1], 'r:' .. id, 'n:' .. id, 'f:' .. id)
  end
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, beyond - 1)
end
return ''
