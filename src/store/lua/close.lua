-- close: moves one chunk of a life up into its parents and out of itself; the last chunk ends it.
--
-- KEYS  1 head, 2 due, 3 tombstones, 4 aside, 5 the bucket's hash, 6 index of its period,
--       then the hash and the index of each parent, then the indexes of the descendants
-- ARGV  1-3 see clock.lua   4 name  5 start  6 end   7 generation  8 revision   9 cursor
--       10 about how many sources a chunk   11 TTL of the tombstone
--       12 1 if it is not to wait for its time, else 0   13 about how many bytes of states a chunk has, at least one
--       14 number of parents, then for each: name, start, end
-- RETURNS  {'GONE'} | {'REFUSED'} | {'WAITING'} | {'PARENT', index, generation, revision} |
--          {'OVERFLOW', field} | {'MORE', cursor, states set aside} | {'DONE', 0, states set aside}

local name, ending, at_once = ARGV[4], tonumber(ARGV[6]), ARGV[12] == '1'
local key, room, parent_count = KEYS[5], tonumber(ARGV[13]), tonumber(ARGV[14])
local life = read_life(key)
if not life then
  return { 'GONE' }
end
if life.generation ~= tonumber(ARGV[7]) or life.revision ~= tonumber(ARGV[8]) then
  return { 'REFUSED' }
end
if not life.closing then
  if life.dirty > 0 or life.acked ~= life.revision or not (at_once or now >= ending + lateness) then
    return { 'REFUSED' }
  end
  if not at_once and any_open(7 + 2 * parent_count, #KEYS, ARGV[5], ARGV[6]) then
    return { 'WAITING' }
  end
end
local parents = {}
for i = 1, parent_count do
  local parent = {
    key = KEYS[5 + 2 * i],
    index = KEYS[6 + 2 * i],
    name = ARGV[12 + 3 * i],
    start = ARGV[13 + 3 * i],
    ending = tonumber(ARGV[14 + 3 * i]),
  }
  parent.life = read_life(parent.key)
  if parent.life and parent.life.closing then
    return { 'PARENT', text(i - 1), text(parent.life.generation), text(parent.life.revision) }
  end
  parents[i] = parent
end

-- The chunk. HSCAN may name a field twice; merged twice it would count twice.
local count = ARGV[10]
if vectors then
  count = scan_count(key, ARGV[9], tonumber(count), room)
end
local scan = redis.call('HSCAN', key, ARGV[9], 'COUNT', count)
local cursor = scan[1]
local fields, states, taken, aside, remove = {}, {}, {}, {}, {}
for i = 1, #scan[2], 2 do
  local field, state = scan[2][i], scan[2][i + 1]
  if string.sub(field, 1, 2) == 's:' and not taken[field] then
    room = room - #state
    if room < 0 and #remove > 0 then
      -- Those that are left come with the same cursor once more.
      cursor = ARGV[9]
      break
    end
    taken[field] = true
    remove[#remove + 1] = field
    if is_scalar(state) or parse_state(state) then
      fields[#fields + 1] = field
      states[#states + 1] = state
    else
      aside[#aside + 1] = name .. '|' .. field
      aside[#aside + 1] = state
    end
  end
end
for _, parent in ipairs(parents) do
  local chunks, field = combine(parent.key, parent.name, fields, function(i, old)
    if old then
      return merge(old, states[i])
    end
    return states[i]
  end, aside)
  if not chunks then
    return { 'OVERFLOW', field }
  end
  parent.chunks = chunks
  if not parent.life then
    parent.generation = next_generation()
  end
end

work_when_full()
save_head('generation', text(highest))
for _, parent in ipairs(parents) do
  write_bucket(parent)
end
write_aside(KEYS[4], aside)
for first = 1, #remove, CHUNK do
  redis.call('HDEL', key, unpack(remove, first, math.min(first + CHUNK - 1, #remove)))
end
if not life.closing then
  redis.call('HSET', key, 'closing', 1)
end

if redis.call('HLEN', key) > LIFE_FIELDS then
  redis.call('ZADD', KEYS[2], text(now), name)
  return { 'MORE', cursor, text(#aside / 2) }
end
redis.call('DEL', key)
redis.call('ZREM', KEYS[2], name)
redis.call('ZREM', KEYS[6], name)
redis.call('ZADD', KEYS[3], text(elapsed + tonumber(ARGV[11])), name)
return { 'DONE', '0', text(#aside / 2) }
