-- Writes a value for one variant of a URL (KEYS[1]), unless what is there was filled later.
-- ARGV: the names of the fields that tell variants apart, the selection, the value, for how many ms it may be of use,
-- its epoch and its position (16 hex digits each), its stamp, when its fetch started, the writer's claim or nothing, and
-- how many variants stay.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local claims = 'claim:' .. ARGV[2]
local held = redis.pcall('HMGET', KEYS[1], 'names', 'rank:' .. ARGV[2], 'newest', claims)
if held.err then
    redis.call('UNLINK', KEYS[1])
    held = {}
end
local names, own, newest, claim = held[1], held[2], held[3], held[4]
-- First of all: whatever comes of the rest, nobody waits any more.
if claim and ARGV[9] ~= '' and string.match(claim, '^%S+') == ARGV[9] then
    redis.call('HDEL', KEYS[1], claims)
end
-- A rank is epoch, position, and when the fetch started: of two at one position the one that was asked for later stays.
local began = string.format('%016.0f', tonumber(ARGV[8]))
local rank = ARGV[5] .. ARGV[6] .. began
local function is_later(known)
    return known and string.sub(known, 1, 16) == ARGV[5] and string.sub(known, 17) > ARGV[6] .. began
end
local is_another_kind = names and names ~= ARGV[1]
if is_later(own) or (is_another_kind and is_later(newest)) then
    return { now, 'older' }
end
-- Each variant has four fields, beside two of the URL.
if is_another_kind or (not own and redis.call('HLEN', KEYS[1]) >= 2 + 4 * tonumber(ARGV[10])) then
    redis.call('UNLINK', KEYS[1])
    newest = false
end
-- A write that came late is no younger for that.
local stamp = math.min(now, tonumber(ARGV[7]))
redis.call('HSET', KEYS[1], 'names', ARGV[1], 'value:' .. ARGV[2], ARGV[3], 'rank:' .. ARGV[2], rank,
    'stamp:' .. ARGV[2], string.format('%.0f', stamp), 'newest', is_later(newest) and newest or rank)
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(tonumber(ARGV[4]), redis.call('PTTL', KEYS[1]))))
return { now, 'stored' }
