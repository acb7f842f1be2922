-- ARGV: the run that the head names, the run that there is. Agrees on the process that there is.
if actual ~= ARGV[2] then
  return report('run')
end
local known = redis.call('HGET', KEYS[1], 'run')
if not known then
  return report('empty')
end
if known ~= ARGV[1] then
  return report('run')
end
redis.call('HSET', KEYS[1], 'run', ARGV[2])
return report('done')
