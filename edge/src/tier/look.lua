-- Tells what is held for one variant of a URL (KEYS[1]), and who fetches it where nothing is.
-- ARGV: the names of the fields that tell variants apart, the selection, the stamp of what is known already, the largest
-- value that is read, the claim of who asks or nothing, for how many ms a claim lasts, and until when one may be given.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local value, claims = 'value:' .. ARGV[2], 'claim:' .. ARGV[2]
local held = redis.pcall('HMGET', KEYS[1], 'names', 'stamp:' .. ARGV[2], claims)
if held.err then
    -- Somebody else's key: it is in nobody's way for long.
    redis.pcall('UNLINK', KEYS[1])
    return { now, 'foreign' }
end
local names, stamp, claim = unpack(held)
if names and names ~= ARGV[1] then
    return { now, 'varies', names }
end
if (tonumber(stamp or '') or 0) > tonumber(ARGV[3]) then
    local length = redis.call('HSTRLEN', KEYS[1], value)
    if length > tonumber(ARGV[4]) then
        return { now, 'foreign' }
    end
    if length > 0 then
        return { now, 'value', redis.call('HGET', KEYS[1], value), stamp }
    end
end
if ARGV[5] == '' then
    return { now, 'nothing' }
end
local holder, ends = string.match(claim or '', '^(%S+) (%d+)$')
-- One that ends later than it can was given by another clock.
if holder and tonumber(ends) > now and tonumber(ends) <= now + 10000 then
    return { now, holder == 'nobody' and 'nothing' or 'busy' }
end
-- Whoever asked may be gone by now. A server that is full, or that only reads, gives no claims.
-- Nor does a URL with very many variants get more.
if now > tonumber(ARGV[7]) or redis.call('HLEN', KEYS[1]) > 200 then
    return { now, 'nothing' }
end
local claimed = redis.pcall('HSET', KEYS[1], claims, ARGV[5] .. ' ' .. string.format('%.0f', now + ARGV[6]))
if type(claimed) == 'table' then
    return { now, 'nothing' }
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[6]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[6])
end
return { now, 'claimed' }
