-- due: the buckets the rollover must look at. Forgets what has expired, a bounded amount at a time.
--
-- KEYS  1 head, 2 due, 3 tombstones, 4 slices
-- ARGV  1-3 see clock.lua   4 most buckets to return   5 prefix of slice keys   6 TTL of tombstones
-- RETURNS  {now, elapsed, time of the next bucket that is not due yet or '', since when the first is due
--          or '', number of open buckets, name, ...}

-- More than a tick of the rollover closes, about 1 ms.
local SWEEP = 1000

work_when_full()
for _, slice in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', text(elapsed), 'LIMIT', 0, SWEEP)) do
  redis.call('UNLINK', ARGV[5] .. slice)
  redis.call('ZREM', KEYS[4], slice)
end
-- A bucket that closed before its time is remembered until a new life of it would not be its first.
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', text(elapsed), 'LIMIT', 0, SWEEP)) do
  local ending = tonumber(string.match(name, '(-?%d+)$'))
  if now >= ending + lateness then
    redis.call('ZREM', KEYS[3], name)
    forgotten = math.max(forgotten or ending, ending)
  else
    redis.call('ZADD', KEYS[3], text(elapsed + tonumber(ARGV[6])), name)
  end
end
if epoch and forgotten then
  save_head('forgotten', text(forgotten))
elseif epoch then
  save_head()
end

local next_due = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local oldest = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now), 'WITHSCORES', 'LIMIT', 0, 1)
local answer = {
  text(now),
  text(elapsed),
  next_due[2] and text(tonumber(next_due[2])) or '',
  oldest[2] and text(tonumber(oldest[2])) or '',
  text(redis.call('ZCARD', KEYS[2])),
}
for i, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now), 'LIMIT', 0, ARGV[4])) do
  answer[i + 5] = name
end
return answer
