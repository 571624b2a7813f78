-- Computes what a bucket's hash is to hold after a list of states is merged into it, and writes it
-- in a second step, so that everything is checked before the first write.

-- unpack() fails beyond some 8,000 values.
local CHUNK = 2000
-- States that could not be read, kept for a person to look at; beyond this they are only counted.
local MAX_ASIDE = 1000

-- Returns the chunks of {field, state, ...} to write into the hash `key`, and the number of states
-- set aside into `aside` (field, bytes, ...). `state_at(i)` gives the i-th new state. A stored state
-- that cannot be read is set aside and its source starts anew. nil and the field on overflow.
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
        aside[#aside + 1] = old
        state = state_at(i, false)
      end
      chunk[#chunk + 1] = fields[i]
      chunk[#chunk + 1] = state
    end
    chunks[#chunks + 1] = chunk
  end
  return chunks
end

local function write_chunks(key, chunks)
  for _, chunk in ipairs(chunks) do
    redis.call('HSET', key, unpack(chunk))
  end
end

local function write_aside(key, aside)
  for i = 1, #aside, 2 do
    if redis.call('HLEN', key) < MAX_ASIDE then
      redis.call('HSET', key, aside[i], aside[i + 1])
    end
  end
end
