-- Returns the whole book as of one moment: its head, names, lives, the edges that may hold a lease, and what all say of themselves.
local present = present_run()
if present == '' then
  return { { 'run', '' }, {}, {}, {}, {} }
end
return {
  redis.call('HGETALL', HEAD),
  redis.call('HGETALL', NAMES),
  redis.call('HGETALL', LIVES),
  redis.call('ZRANGE', EDGES, 0, -1),
  redis.call('HGETALL', SAID),
}
