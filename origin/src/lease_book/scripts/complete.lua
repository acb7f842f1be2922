-- Makes everything up to a seq complete, where each edge's life that may hold a lease has applied it, or its lease has ended as the
-- caller's clock says, and none was granted to it since: each grant has a number of its own.
-- ARGV: run, epoch, seq, then the numbers of grants whose leases have ended.
local mismatch = other(ARGV[1], ARGV[2])
if mismatch then
  return mismatch
end
local seq = number(ARGV[3])
-- Whose leases have ended at that the log tells: nobody says that it is complete before it has read that.
if seq <= number(book.complete) then
  return { 'done', book.complete, text(number(book.log)) }
end
-- Nobody could come up to what the journal has lost.
if journal_epoch == book.epoch and seq > number(journal_seq) then
  return { 'no', '0' }
end

local range = { '-inf', '(' .. text(seq) }
if redis.call('ZCOUNT', EDGES, unpack(range)) > #ARGV - 3 then
  return { 'no', '0' }
end
local has_ended = {}
for at = 4, #ARGV do
  has_ended[ARGV[at]] = true
end
local below = redis.call('ZRANGEBYSCORE', EDGES, unpack(range))
local line = { 'complete', text(seq) }
for _, key in ipairs(below) do
  local life = read_life(key)
  local given = life and text(life.grant)
  if not has_ended[given] then
    return { 'no', '0' }
  end
  line[#line + 1] = given
end

-- Their leases hold nothing back any more. What the present life of a name has applied stays known.
for _, key in ipairs(below) do
  redis.call('ZREM', EDGES, key)
  local who, life = string.match(key, '^([^/]*/[^/]*)/(.*)$')
  local name = read_name(who)
  if name and name.life ~= life then
    redis.call('HDEL', LIVES, key)
    remove(name.former, life)
    write_name(who, name)
  end
end
book.complete = seq
book.floor = math.max(number(book.floor), seq)
close({ line })
return { 'done', text(seq), text(number(book.log)) }
