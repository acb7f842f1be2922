-- ARGV: run; epoch, seq and chain of the life that ends (three times nothing: there must be none); epoch, seq, chain and
-- state of the life that begins. Nothing of the life before is left, so that nobody takes its events for this one's.
local run, epoch, seq, chain = unpack(ARGV, 1, 4)
if actual ~= run then
  return report('run')
end
local head = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'seq', 'chain')
if epoch == '' then
  if head[2] then
    return report('epoch')
  end
elseif not head[2] then
  return report('empty')
elseif head[1] ~= run then
  return report('run')
elseif head[2] ~= epoch then
  return report('epoch')
elseif head[3] ~= seq or head[4] ~= chain then
  return report('moved')
end
redis.call('DEL', KEYS[2], KEYS[4])
redis.call('HINCRBY', KEYS[1], 'turn', 1)
redis.call('HSET', KEYS[1], 'run', run, 'epoch', ARGV[5], 'seq', ARGV[6], 'chain', ARGV[7], 'durable', ARGV[6], 'begun', run)
redis.call('HSET', KEYS[3], 'epoch', ARGV[5], 'seq', ARGV[6], 'state', ARGV[8])
return report('done')
