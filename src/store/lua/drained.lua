-- drained: notes that another store may go on for this one: the next founding gives a new epoch.
--
-- KEYS  1 head
-- ARGV  1-3 see clock.lua
-- RETURNS  'OK'

work_when_full()
save_head('drained', 1)
return 'OK'
