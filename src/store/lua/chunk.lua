-- How many sources to scan from a cursor on: `most`, and fewer where those that come first are so large that all
-- would have more than so many bytes. Only asked of shards that have had vectors.
local function scan_count(key, cursor, most, bytes)
  local sample = redis.call('HSCAN', key, cursor, 'COUNT', 10)[2]
  local largest = 1
  for i = 2, #sample, 2 do
    largest = math.max(largest, #sample[i])
  end
  return math.max(math.min(most, math.floor(bytes / largest)), 1)
end
