-- register: notes that an instance is there, or that it leaves; forgets those not heard of for long.
--
-- KEYS  1 head, 2 nodes
-- ARGV  1-3 see clock.lua   4 id   5 what it says of itself, '' if it leaves   6 time to live
-- RETURNS  {id, number, time since it was last heard of, what it says of itself, ...}

local id, said, ttl = ARGV[4], ARGV[5], tonumber(ARGV[6])
work_when_full()
if epoch then
  save_head()
end

-- A record is 'number elapsed text'.
local answer, highest_number, own = {}, 0, nil
local records = redis.call('HGETALL', KEYS[2])
for i = 1, #records, 2 do
  local number, heard, text_of = string.match(records[i + 1], '^(%d+) (%d+) (.*)$')
  number, heard = tonumber(number), tonumber(heard)
  if not number or elapsed - heard >= ttl or (records[i] == id and said == '') then
    redis.call('HDEL', KEYS[2], records[i])
  else
    highest_number = math.max(highest_number, number)
    if records[i] == id then
      own = number
    else
      answer[#answer + 1] = records[i]
      answer[#answer + 1] = text(number)
      answer[#answer + 1] = text(math.max(elapsed - heard, 0))
      answer[#answer + 1] = text_of
    end
  end
end
if said ~= '' then
  own = text(own or highest_number + 1)
  redis.call('HSET', KEYS[2], id, own .. ' ' .. text(elapsed) .. ' ' .. said)
  answer[#answer + 1] = id
  answer[#answer + 1] = own
  answer[#answer + 1] = '0'
  answer[#answer + 1] = said
end
return answer
