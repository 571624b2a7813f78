-- found: gives a shard without epoch, or one that was drained, a new one; leaves another alone.
--
-- KEYS  1 head
-- ARGV  1-3 see clock.lua
-- RETURNS  the epoch in force

if not epoch or redis.call('HEXISTS', KEYS[1], 'drained') == 1 then
  epoch = next_generation()
  save_head('epoch', text(epoch), 'generation', text(highest))
  redis.call('HDEL', KEYS[1], 'drained')
end
return text(epoch)
