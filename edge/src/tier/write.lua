-- Writes a value for one variant of a URL (KEYS[1]), unless what is there was filled later.
-- ARGV: the names of the fields that tell variants apart, the selection, the value, for how many ms it may be of use,
-- its epoch and its position (16 hex digits each), its stamp, the writer's claim or nothing, and how many variants stay.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function is_later(rank)
    return rank and string.sub(rank, 1, 16) == ARGV[5] and string.sub(rank, 17) > ARGV[6]
end
local function give_up_claim()
    local claim = ARGV[8] ~= '' and redis.call('HGET', KEYS[1], 'claim')
    if claim and string.match(claim, '^%S+') == ARGV[8] then
        redis.call('HDEL', KEYS[1], 'claim')
    end
end
local rank = ARGV[5] .. ARGV[6]
local names, own, newest = unpack(redis.call('HMGET', KEYS[1], 'names', 'rank:' .. ARGV[2], 'newest'))
local is_another_kind = names and names ~= ARGV[1]
if is_later(own) or (is_another_kind and is_later(newest)) then
    give_up_claim()
    return { now, 'older' }
end
-- Each variant has three fields, beside three of the URL.
if is_another_kind or (not own and redis.call('HLEN', KEYS[1]) >= 3 + 3 * tonumber(ARGV[9])) then
    redis.call('DEL', KEYS[1])
    newest = false
end
-- A write that came late is no younger for that.
local stamp = math.min(now, tonumber(ARGV[7]))
redis.call('HSET', KEYS[1], 'names', ARGV[1], 'value:' .. ARGV[2], ARGV[3], 'rank:' .. ARGV[2], rank,
    'stamp:' .. ARGV[2], string.format('%.0f', stamp), 'newest', is_later(newest) and newest or rank)
give_up_claim()
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(tonumber(ARGV[4]), redis.call('PTTL', KEYS[1]))))
return { now, 'stored' }
