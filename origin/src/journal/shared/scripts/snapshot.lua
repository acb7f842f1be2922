-- ARGV: run, epoch, seq, chain, fence, the first seq that stays, state. Replaces the snapshot, unless whoever made it is
-- behind: it was paused, or of another life, or somebody made a newer one.
if other_run(ARGV[1]) then
  return report('run')
end
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[2] then
  return report('epoch')
end
local known = redis.call('HMGET', KEYS[3], 'seq', 'fence')
if tonumber(ARGV[5]) < tonumber(known[2] or '0') or tonumber(ARGV[3]) < tonumber(known[1] or '0') then
  return report('behind')
end
local word = place(ARGV[2], ARGV[3], ARGV[4])
if word ~= 'here' then
  return report(word)
end
redis.call('HSET', KEYS[3], 'epoch', ARGV[2], 'seq', ARGV[3], 'fence', ARGV[5], 'state', ARGV[7])
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[6] .. '-0')
return report('done')
