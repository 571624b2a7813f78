-- The beginning of every script: the shard's head and its clocks.
--
-- KEYS[1]  head of the shard
-- ARGV[1]  time in milliseconds to use instead of the server's (tests), or ''
-- ARGV[2]  grace, milliseconds
-- ARGV[3]  lateness, milliseconds
--
-- clock    the server's time, which may step
-- elapsed  for all that expires: the clock's advance between calls, at least 0, at most 5 s each
-- now      for lateness and due times: never goes back, and moves on with `elapsed` even while
--          the clock is behind it (a clock that stepped ahead and back must not stop the rollover)

local MAX_ADVANCE = 5000
local MAX_DIRTY = 60000

-- Numbers go into the store as decimals without exponent: tostring() keeps only 14 digits.
local function text(number)
  return string.format('%.0f', number)
end

local clock
if ARGV[1] ~= '' then
  clock = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  clock = time[1] * 1000 + math.floor(time[2] / 1000)
end
local grace, lateness = tonumber(ARGV[2]), tonumber(ARGV[3])

local head = redis.call('HMGET', KEYS[1], 'epoch', 'elapsed', 'clock', 'now', 'generation', 'forgotten', 'vectors', 'rules')
local epoch = head[1] and tonumber(head[1])
local advance = math.min(math.max(clock - tonumber(head[3] or clock), 0), MAX_ADVANCE)
local elapsed = tonumber(head[2] or 0) + advance
local now = math.max(tonumber(head[4] or 0) + advance, clock)
local highest = tonumber(head[5] or 0)
-- Highest end of a closed bucket that is no longer remembered; nothing if there is none.
local forgotten = head[6] and tonumber(head[6])
-- Whether any state was ever one of vectors.
local vectors = head[7]
-- The newest version of the rules, nothing if there is none: its number, and from which start on.
local rules = head[8] and { number = tonumber(string.match(head[8], '^%d+')), from = tonumber(string.match(head[8], '%S+$')) }

-- Writes the clocks, and more fields of the head if given. This comes before all that changes
-- anything else: a store that is out of memory or read-only refuses here.
local function save_head(...)
  redis.call('HSET', KEYS[1], 'elapsed', text(elapsed), 'clock', text(clock), 'now', text(now), ...)
end

-- For what frees memory in the end, or only looks: it must work when there is none left. After a first
-- write, and be it one that needs no memory and changes nothing, Redis refuses no other for want of it.
local function work_when_full()
  redis.call('HDEL', KEYS[1], '')
end
