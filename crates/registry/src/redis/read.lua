-- KEYS: workers, addresses, leases, versions, version. ARGV: version known, start of the slots' keys.
-- The version now; names and taken slots of all that live; names and records of those that changed since.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
  redis.call('HDEL', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  redis.call('ZREM', KEYS[4], name)
end
local names = redis.call('ZRANGE', KEYS[3], 0, -1)
local taken = {}
for i, name in ipairs(names) do
  taken[i] = redis.call('ZCOUNT', ARGV[2] .. name, '(' .. now, '+inf')
end
local version = tonumber(redis.call('GET', KEYS[5]) or '0')
local known = tonumber(ARGV[1])
if known > version then
  known = 0
end
local changed = redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. known, '+inf')
local records = {}
for i, name in ipairs(changed) do
  records[i] = redis.call('HGET', KEYS[1], name) or ''
end
return { version, names, taken, changed, records }
