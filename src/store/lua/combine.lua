-- Computes what a bucket's hash is to hold after a list of states is merged into it, and writes it
-- in a second step, so that everything is checked before the first write.

-- unpack() fails beyond some 8,000 values.
local CHUNK = 2000
-- States that could not be read, kept for a person to look at; beyond this they are only counted.
local MAX_ASIDE = 1000

-- Returns the chunks of {field, state, ...} to write into the hash `key`, and the number of states
-- set aside into `aside` (field, bytes, ...). `state_at(i)` gives the i-th new state. A stored state
-- that cannot be read is set aside and its source starts anew; a new one of another length, which apply keeps
-- from coming, is itself set aside. nil and the field on overflow.
local function combine(key, name, fields, state_at, aside)
  local chunks = {}
  for first = 1, #fields, CHUNK do
    local last = math.min(first + CHUNK - 1, #fields)
    local stored = redis.call('HMGET', key, unpack(fields, first, last))
    local chunk = {}
    for i = first, last do
      local old = stored[i - first + 1]
      local state, reason = state_at(i, old)
      if not state then
        if reason == 'overflow' then
          return nil, fields[i]
        end
        aside[#aside + 1] = name .. '|' .. fields[i]
        if reason == 'shapes' then
          aside[#aside + 1] = state_at(i, false)
          state = old
        else
          aside[#aside + 1] = old
          state = state_at(i, false)
        end
      end
      chunk[#chunk + 1] = fields[i]
      chunk[#chunk + 1] = state
    end
    chunks[#chunks + 1] = chunk
  end
  return chunks
end

-- Writes the combined chunks of a bucket that readings came to: gives it the life of `generation` if
-- that is set, makes it dirty, and due in KEYS[2].
local function write_bucket(bucket)
  local dirty = now
  if bucket.generation then
    redis.call('HSET', bucket.key, 'generation', text(bucket.generation), 'revision', 0, 'acked', 0, 'dirty', text(now))
    redis.call('ZADD', bucket.index, bucket.start, bucket.name)
  elseif bucket.life.dirty == 0 then
    redis.call('HSET', bucket.key, 'dirty', text(now))
  else
    dirty = bucket.life.dirty
  end
  for _, chunk in ipairs(bucket.chunks) do
    redis.call('HSET', bucket.key, unpack(chunk))
  end
  redis.call('ZADD', KEYS[2], text(due_at(bucket.ending, dirty)), bucket.name)
end

local function write_aside(key, aside)
  for i = 1, #aside, 2 do
    if redis.call('HLEN', key) < MAX_ASIDE then
      redis.call('HSET', key, aside[i], aside[i + 1])
    end
  end
end
