-- Gives up a claim on a variant of a URL (KEYS[1]) without a value. ARGV: the selection, the claim, and for how many ms
-- nobody is to wait for whoever fetches it.
local claims = 'claim:' .. ARGV[1]
local claim = redis.pcall('HGET', KEYS[1], claims)
if type(claim) ~= 'string' or string.match(claim, '^%S+') ~= ARGV[2] then
    return 0
end
redis.call('HDEL', KEYS[1], claims)
if tonumber(ARGV[3]) == 0 or redis.call('HLEN', KEYS[1]) > 200 then
    return 1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- A server that is full keeps no word for the others.
redis.pcall('HSET', KEYS[1], claims, 'nobody ' .. string.format('%.0f', now + ARGV[3]))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
