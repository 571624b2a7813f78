-- acked: the log of acks behind a mark; changes nothing.
--
-- KEYS  1 head, 2 log
-- ARGV  1 mark, '' for none of it   2 how many entries at most
-- RETURNS  {epoch or '', 1 if nothing behind the mark was dropped else 0, mark of the newest, then for each entry:
--           mark, 'name generation revision'}

local head = redis.call('HMGET', KEYS[1], 'epoch', 'logged', 'acks')
local answer = { head[1] or '', '1', head[2] or '0' }
if ARGV[1] == '' then
  return answer
end
local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local function mark_of(entry)
  return string.match(entry[1], '^%d+')
end
-- Whoever has the mark of the oldest one, or a later one, has missed none.
if redis.call('XLEN', KEYS[2]) ~= tonumber(head[3] or 0) and not (oldest and tonumber(ARGV[1]) >= tonumber(mark_of(oldest))) then
  answer[2] = '0'
end
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-1', '+', 'COUNT', ARGV[2])) do
  answer[#answer + 1] = mark_of(entry)
  answer[#answer + 1] = entry[2][2]
end
return answer
