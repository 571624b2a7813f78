-- forget: removes a source's states from some lives.
--
-- KEYS  hashes of the buckets
-- ARGV  1 field of the source
-- RETURNS  in how many it stood

local found = 0
for i = 1, #KEYS do
  found = found + redis.call('HDEL', KEYS[i], ARGV[1])
end
return string.format('%.0f', found)
