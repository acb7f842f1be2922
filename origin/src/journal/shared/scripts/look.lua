-- ARGV: run, epoch, seq, chain, fence. Says what is behind a position. With a fence an append that is still under way, and
-- was sent before, can't succeed any more.
if other_run(ARGV[1]) then
  return report(redis.call('EXISTS', KEYS[1]) == 0 and actual == ARGV[1] and 'empty' or 'run')
end
local word = place(ARGV[2], ARGV[3], ARGV[4])
if ARGV[5] == '1' then
  redis.call('HINCRBY', KEYS[1], 'turn', 1)
end
if word == 'here' then
  return report(word, page('(' .. ARGV[3] .. '-0', 512))
end
return report(word)
