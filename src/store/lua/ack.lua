-- ack: notes that the sink has a life at a revision; only if these are the present ones.
--
-- KEYS  1 head, 2 due, 3 the bucket's hash, 4 log
-- ARGV  1-3 see clock.lua   4 name  5 end   6 generation  7 revision   8 entries of the log that are kept
-- RETURNS  'IGNORED' | 'DIRTY' | 'CLEAN'

local life = read_life(KEYS[3])
if not life or life.closing or life.generation ~= tonumber(ARGV[6]) or life.revision ~= tonumber(ARGV[7]) then
  return 'IGNORED'
end
work_when_full()
save_head()
if life.acked ~= life.revision then
  local last = tonumber(redis.call('HGET', KEYS[1], 'logged') or 0)
  local mark = text(math.max(last + 1, now))
  redis.call('HSET', KEYS[1], 'logged', mark)
  redis.call('HINCRBY', KEYS[1], 'acks', 1)
  redis.call('XADD', KEYS[4], 'MAXLEN', ARGV[8], mark .. '-1', 'life', ARGV[4] .. ' ' .. ARGV[6] .. ' ' .. ARGV[7])
end
redis.call('HSET', KEYS[3], 'acked', text(life.revision))
local ending = tonumber(ARGV[5])
if life.dirty > 0 then
  redis.call('ZADD', KEYS[2], text(due_at(ending, life.dirty)), ARGV[4])
  return 'DIRTY'
end
redis.call('ZADD', KEYS[2], text(math.max(now, ending + lateness)), ARGV[4])
return 'CLEAN'
