-- confirm: a write that changes nothing but the clocks, for replicas to confirm.
--
-- KEYS  1 head
-- ARGV  1-3 see clock.lua
-- RETURNS  'OK'

work_when_full()
if epoch then
  save_head()
end
return 'OK'
