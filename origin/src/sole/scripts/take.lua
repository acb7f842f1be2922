-- KEYS: holder, fence. ARGV: who asks, milliseconds. Gives the work to who asks unless somebody else has it, and tells the
-- fencing number; nothing where somebody has it. A number is never given twice, whatever the clock of this server does.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return ''
end
if not holder then
  redis.call('INCR', KEYS[2])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('GET', KEYS[2])
