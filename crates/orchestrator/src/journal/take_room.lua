-- KEYS: rooms, watch. ARGV: lease_ms, settle_ms. The room whose lease ended longest ago, with a new one; nothing where
-- there is none. After a time in which nobody could look, who talks in a room is first given the time to say so.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local looked = tonumber(redis.call('HGET', KEYS[2], 'looked') or '0')
if now - looked > 1000 then
  redis.call('HSET', KEYS[2], 'from', now + ARGV[2])
end
redis.call('HSET', KEYS[2], 'looked', now)
redis.call('PEXPIRE', KEYS[2], 60000)
if now < tonumber(redis.call('HGET', KEYS[2], 'from') or '0') then
  return false
end
local room = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1)[1]
if not room then
  return false
end
redis.call('ZADD', KEYS[1], now + ARGV[1], room)
return room
