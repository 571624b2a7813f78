-- found: gives a shard without epoch a new one; leaves another alone.
--
-- KEYS  1 head
-- ARGV  1-3 see clock.lua
-- RETURNS  the epoch in force

if not epoch then
  epoch = next_generation()
  save_head('epoch', text(epoch), 'generation', text(highest))
end
return text(epoch)
