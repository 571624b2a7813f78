-- The classic way to keep statistics in Redis: one hash for each source with a sum, a sum of squares and a counter. When
-- a reading comes that belongs to the next hour, the hour before is written out, as a line `id, mean, variance`.
--
--   redis-cli --eval record.lua kitchen , 21.5 1767607200
--
-- KEYS  1 source
-- ARGV  1 value, 2 timestamp in seconds

local PERIOD = 3600
local id, value, timestamp = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])

local function field(name)
  return tonumber(redis.call('HGET', id, name)) or 0
end

local sigma, squares_sigma, counter = field('sigma'), field('squares_sigma'), field('counter')
local last_timestamp = field('last_timestamp')

if counter > 0 and math.floor(timestamp / PERIOD) > math.floor(last_timestamp / PERIOD) then
  local mean = sigma / counter
  local variance = squares_sigma / counter - mean * mean
  redis.call('RPUSH', 'written', string.format('%s, %.17g, %.17g', id, mean, variance))
  sigma, squares_sigma, counter = 0, 0, 0
end

redis.call('HSET', id,
  'sigma', sigma + value,
  'squares_sigma', squares_sigma + value * value,
  'counter', counter + 1,
  'last_timestamp', timestamp)
return counter + 1
