-- Forgets a follower that was silent for long: its last grant is this one, and the lease has ended. ARGV: run, who, grant.
local mismatch = other(ARGV[1])
if mismatch then
  return mismatch
end
local who = ARGV[2]
local name = read_name(who)
local key = name and who .. '/' .. name.life
local life = key and read_life(key)
if not life or life.grant ~= number(ARGV[3]) or #name.former > 0 then
  return { 'no', '0' }
end
redis.call('HDEL', NAMES, who)
redis.call('HDEL', SAID, who)
redis.call('HDEL', LIVES, key)
redis.call('ZREM', EDGES, key)
close({ { 'forgotten', who } })
return { 'done', '1' }
