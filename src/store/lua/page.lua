-- page: some sources of a life and their states; changes nothing.
--
-- KEYS  1 the bucket's hash   2 head
-- ARGV  1 generation  2 cursor  3 about how many sources   4 about how many bytes of states
-- RETURNS  {} if the generation is another | {next cursor, 0 at the end, field, state, ...}

local generation = redis.call('HGET', KEYS[1], 'generation')
if not generation or tonumber(generation) ~= tonumber(ARGV[1]) then
  return {}
end
local count = ARGV[3]
if redis.call('HGET', KEYS[2], 'vectors') then
  count = scan_count(KEYS[1], ARGV[2], tonumber(count), tonumber(ARGV[4]))
end
local scan = redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', count)
local answer = { scan[1] }
for i = 1, #scan[2], 2 do
  if string.sub(scan[2][i], 1, 2) == 's:' then
    answer[#answer + 1] = scan[2][i]
    answer[#answer + 1] = scan[2][i + 1]
  end
end
return answer
