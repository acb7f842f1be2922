-- ARGV: run, epoch, seq. Replicas have all up to this event: other origins may show it, and hear of it by a stream of one.
if other_run(ARGV[1]) then
  return report('run')
end
local head = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'durable')
if head[1] ~= ARGV[2] then
  return report('epoch')
end
local seq = tonumber(ARGV[3])
if seq > tonumber(head[3]) and seq <= tonumber(head[2]) then
  redis.call('HSET', KEYS[1], 'durable', ARGV[3])
  redis.call('XADD', KEYS[4], 'MAXLEN', 1, ARGV[3] .. '-0', 'p', ARGV[2])
end
return report('done')
