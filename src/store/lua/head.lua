-- head: what the store knows of the shard and of a writer; changes nothing.
--
-- KEYS  1 head
-- ARGV  1-3 see clock.lua   4 writer field
-- RETURNS  {epoch or '', elapsed, now, last sequence of the writer, newest version of the rules}

local record = redis.call('HGET', KEYS[1], ARGV[4])
local sequence = record and string.match(record, '^%d+') or '0'
return { epoch and text(epoch) or '', text(elapsed), text(now), sequence, text(rules and rules.number or 0) }
