-- Goes on with a claim on a variant of a URL (KEYS[1]), if it is still there. ARGV: the selection, the claim, and for how
-- many ms it lasts.
local claims = 'claim:' .. ARGV[1]
local claim = redis.pcall('HGET', KEYS[1], claims)
if type(claim) ~= 'string' or string.match(claim, '^%S+') ~= ARGV[2] then
    return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.pcall('HSET', KEYS[1], claims, ARGV[2] .. ' ' .. string.format('%.0f', now + ARGV[3]))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
