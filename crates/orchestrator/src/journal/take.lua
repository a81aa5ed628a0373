-- KEYS: conversation. The new epoch and the record; nothing where there is none.
local record = redis.call('HGET', KEYS[1], 'record')
if not record then
  return false
end
return { redis.call('HINCRBY', KEYS[1], 'epoch', 1), record }
