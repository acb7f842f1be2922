-- Takes the present life of an edge out of service. ARGV: run, who.
local mismatch = other(ARGV[1])
if mismatch then
  return mismatch
end
local name = read_name(ARGV[2])
if not name then
  return { 'no', '0' }
end
if not name.drained then
  name.drained = true
  write_name(ARGV[2], name)
  close({ { 'drained', ARGV[2] } })
end
return { 'done', '1' }
