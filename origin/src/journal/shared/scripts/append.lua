-- ARGV: run, epoch, seq, chain, turn, and of each event its seq, its chain and its JSON. Appends all of them if the head is
-- exactly that; else says what is behind that position.
local run, epoch, seq, chain, turn = unpack(ARGV, 1, 5)
if other_run(run) then
  return report(redis.call('EXISTS', KEYS[1]) == 0 and actual == run and 'empty' or 'run')
end
local word = place(epoch, seq, chain)
if word ~= 'here' then
  return report(word)
end
local head = redis.call('HMGET', KEYS[1], 'seq', 'turn')
if head[1] ~= seq or head[2] ~= turn then
  return report(word, page('(' .. seq .. '-0', 512))
end
for i = 6, #ARGV, 3 do
  redis.call('XADD', KEYS[2], ARGV[i] .. '-0', 'p', epoch, 'c', ARGV[i + 1], 'e', ARGV[i + 2])
end
redis.call('HSET', KEYS[1], 'seq', ARGV[#ARGV - 2], 'chain', ARGV[#ARGV - 1])
return report('done')
