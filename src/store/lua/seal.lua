-- seal: gives the content of a dirty life a new revision and makes it clean.
--
-- KEYS  1 head, 2 due, 3 the bucket's hash, 4 index of its period, 5... indexes of its descendants' open buckets
-- ARGV  1-3 see clock.lua   4 name  5 start  6 end   7 visibility timeout   8 recheck of a waiting bucket
--       9 1 if it is not to wait for its descendants, else 0
-- RETURNS  {'GONE'} | {'WAITING'} | {'CLOSING', generation, revision} |
--          {'SEALED', generation, revision, 1 if the sink has this revision else 0}

local name = ARGV[4]
local life = read_life(KEYS[3])
if not life then
  -- Also after somebody deleted the hash by hand: else its entry would be an open child for ever.
  redis.call('ZREM', KEYS[2], name)
  redis.call('ZREM', KEYS[4], name)
  return { 'GONE' }
end
if life.closing then
  return { 'CLOSING', text(life.generation), text(life.revision) }
end
work_when_full()
if ARGV[9] ~= '1' and any_open(5, #KEYS, ARGV[5], ARGV[6]) then
  save_head()
  redis.call('ZADD', KEYS[2], text(math.max(now + tonumber(ARGV[8]), tonumber(ARGV[6]) + grace)), name)
  return { 'WAITING' }
end
save_head()
if life.dirty > 0 then
  life.revision = math.max(life.revision + 1, now)
  redis.call('HSET', KEYS[3], 'revision', text(life.revision), 'dirty', 0)
end
redis.call('ZADD', KEYS[2], text(now + tonumber(ARGV[7])), name)
local acked = life.dirty == 0 and life.acked == life.revision
return { 'SEALED', text(life.generation), text(life.revision), acked and '1' or '0' }
