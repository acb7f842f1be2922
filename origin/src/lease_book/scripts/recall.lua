-- Puts back followers that the caller knows and the book has lost: one that is fenced may go on serving by its routes' choice.
-- ARGV: run, epoch, then per follower: who, life, applied, whether it is drained, what it says of itself.
local mismatch = other(ARGV[1], ARGV[2])
if mismatch then
  return mismatch
end
local lines = {}
for at = 3, #ARGV, 5 do
  local who, life, applied, drained, news = unpack(ARGV, at, at + 4)
  if redis.call('HEXISTS', NAMES, who) == 0 and redis.call('HLEN', NAMES) < MOST_FOLLOWERS then
    write_name(who, { life = life, drained = drained == '1', former = {}, replaced = {} })
    write_life(who .. '/' .. life, { grant = 0, lease = 0, applied = number(applied) })
    redis.call('HSET', SAID, who, news)
    lines[#lines + 1] = { 'known', who, life, applied, drained, news }
  end
end
if #lines > 0 then
  close(lines)
end
return { 'done', text(#lines) }
