-- Takes in acks of several followers and decides about a lease for each: what is complete is looked at in the same step.
-- ARGV: run, epoch, for how many ms a run gives no leases that has just begun, then per ack: role, name, life, seq, lease in ms, whether it lags, what it says of itself ('' for no news).
local mismatch = other(ARGV[1], ARGV[2])
if mismatch then
  return mismatch
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if book.since and now >= number(book.since) and now < number(book.since) + number(ARGV[3]) then
  return { 'early' }
end

local lines = {}

-- The lease of a life that was replaced may still run. Of too many the two oldest count as one. The younger's last grant is later
-- than all of the older's: where it is no shorter, it stands for both as it is.
local function retire(who, name)
  local key = who .. '/' .. name.life
  if redis.call('ZSCORE', EDGES, key) then
    name.former[#name.former + 1] = name.life
  else
    redis.call('HDEL', LIVES, key)
  end
  if #name.former > MOST_LIVES then
    local oldest, next = who .. '/' .. table.remove(name.former, 1), who .. '/' .. name.former[1]
    local one, two = read_life(oldest), read_life(next)
    local lease = math.max(one.lease, two.lease)
    local given = one.lease <= two.lease and two.grant or grant(lease)
    local merged = { grant = given, lease = lease, applied = math.min(one.applied, two.applied) }
    redis.call('ZREM', EDGES, oldest)
    redis.call('HDEL', LIVES, oldest)
    write_life(next, merged)
    redis.call('ZADD', EDGES, text(merged.applied), next)
    lines[#lines + 1] = {
      'merged', who, text(one.grant), text(two.grant), name.former[1], text(merged.applied), text(merged.grant), text(merged.lease),
    }
  end
  name.replaced[#name.replaced + 1] = name.life
  if #name.replaced > MOST_LIVES then
    table.remove(name.replaced, 1)
  end
end

local function ack(role, node, life, seq, lease, lags, news)
  local who = role .. '/' .. node
  local key = who .. '/' .. life
  local name = read_name(who)
  if not name then
    if redis.call('HLEN', NAMES) >= MOST_FOLLOWERS then
      return 'retired', 0
    end
    name = { life = life, drained = false, former = {}, replaced = {} }
    write_name(who, name)
  elseif contains(name.replaced, life) or contains(name.former, life) then
    -- Where the present life was taken out of service, another one must not come back in its place.
    return 'retired', name.drained and 0 or 1
  elseif name.life ~= life then
    retire(who, name)
    name.life, name.drained = life, false
    write_name(who, name)
  end
  local known = read_life(key) or { grant = 0, lease = 0, applied = seq }
  known.applied = math.max(known.applied, seq)
  local word, given = 'granted', 0
  if name.drained then
    word = 'retired'
  elseif seq < number(book.floor) then
    word = 'below_complete'
  elseif lags then
    word = 'laggard'
  else
    given = grant(lease)
    known.grant, known.lease = given, math.max(known.lease, lease)
  end
  write_life(key, known)
  if role == 'edge' and (given > 0 or redis.call('ZSCORE', EDGES, key)) then
    redis.call('ZADD', EDGES, text(known.applied), key)
  end
  if news ~= '' then
    redis.call('HSET', SAID, who, news)
  end
  lines[#lines + 1] = { 'ack', who, life, text(known.applied), text(given), text(lease), news }
  return word, given
end

local answer = { 'ok', journal_epoch == book.epoch and journal_seq or '0' }
for at = 4, #ARGV, 7 do
  local word, given = ack(ARGV[at], ARGV[at + 1], ARGV[at + 2], number(ARGV[at + 3]), number(ARGV[at + 4]), ARGV[at + 5] == '1', ARGV[at + 6])
  answer[#answer + 1] = word
  answer[#answer + 1] = text(given)
end
close(lines)
return answer
