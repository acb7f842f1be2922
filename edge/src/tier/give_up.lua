-- Gives up a claim on a URL (KEYS[1]) without a value. ARGV: the claim, and for how many ms nobody is to wait for
-- whoever fetches it.
local claim = redis.call('HGET', KEYS[1], 'claim')
if not claim or string.match(claim, '^%S+') ~= ARGV[1] then
    return 0
end
if tonumber(ARGV[2]) == 0 then
    return redis.call('HDEL', KEYS[1], 'claim')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'claim', 'nobody ' .. string.format('%.0f', now + ARGV[2]))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
