-- ARGV: run, epoch. Writes something, so that a WAIT behind it on the same connection waits for all that was written before.
if other_run(ARGV[1]) then
  return report(redis.call('EXISTS', KEYS[1]) == 0 and actual == ARGV[1] and 'empty' or 'run')
end
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[2] then
  return report('epoch')
end
redis.call('HINCRBY', KEYS[1], 'touched', 1)
return report('done')
