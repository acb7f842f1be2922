-- Tells what is held for one variant of a URL (KEYS[1]), and who fetches it where nothing is.
-- ARGV: the names of the fields that tell variants apart, the selection, the stamp of what is known already,
-- the claim of who asks or nothing, and for how many ms a claim lasts.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local names, value, stamp, claim = unpack(redis.call('HMGET', KEYS[1], 'names', 'value:' .. ARGV[2], 'stamp:' .. ARGV[2], 'claim'))
if names and names ~= ARGV[1] then
    return { now, 'varies', names }
end
if value and stamp and tonumber(stamp) > tonumber(ARGV[3]) then
    return { now, 'value', value, stamp }
end
if ARGV[4] == '' then
    return { now, 'nothing' }
end
local holder, ends = string.match(claim or '', '^(%S+) (%d+)$')
if holder and tonumber(ends) > now then
    return { now, holder == 'nobody' and 'nothing' or 'busy' }
end
-- A server that is full, or that only reads, gives no claims.
local claimed = redis.pcall('HSET', KEYS[1], 'claim', ARGV[4] .. ' ' .. string.format('%.0f', now + ARGV[5]))
if type(claimed) == 'table' then
    return { now, 'nothing' }
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return { now, 'claimed' }
