-- Merges two states, byte for byte as stats/layout.rs does: see there for the layout. Values cross
-- as packed doubles; products are formed in Rust, here is only addition.

local SCALAR = 0x00010101 -- version 1, profile 1, dimension 1
local SCALAR_FORMAT = '<I4ddddddd'
local SCALAR_BYTES = 60
local ORDER_2, POWERS, LATEST, SPARSE = 1, 2, 4, 8
local MAX_DIMENSION = 64
local HUGE = math.huge
local MAX_COUNT = 9007199254740992 -- 2^53: beyond it a count is no longer exact

-- Sum of two double-doubles (Joldes, Muller, Popescu 2017, Algorithm 6), in the order of
-- stats/double_double.rs.
local function add_pair(xh, xl, yh, yl)
  local sh = xh + yh
  local bb = sh - xh
  local sl = (xh - (sh - bb)) + (yh - bb)
  local th = xl + yl
  bb = th - xl
  local tl = (xl - (th - bb)) + (yl - bb)
  local c = sl + th
  local vh = sh + c
  local w = tl + (c - (vh - sh))
  local hi = vh + w
  return hi, w - (hi - vh)
end

-- The fast case: both are scalar states, `b` the 60 bytes of `deltas` from `at`. Returns the merged
-- bytes; nil if either is something else; false if the result is not finite or no longer exact.
local function merge_scalar(a, deltas, at)
  if #a ~= SCALAR_BYTES or #deltas - at + 1 < SCALAR_BYTES then
    return nil
  end
  local ha, na, sah, sal, qah, qal, mina, maxa = struct.unpack(SCALAR_FORMAT, a)
  local hb, nb, sbh, sbl, qbh, qbl, minb, maxb = struct.unpack(SCALAR_FORMAT, deltas, at)
  if ha ~= SCALAR or hb ~= SCALAR then
    return nil
  end
  -- add_pair twice, written out: a call costs as much as the additions.
  local sh = sah + sbh
  local bb = sh - sah
  local sl = (sah - (sh - bb)) + (sbh - bb)
  local th = sal + sbl
  bb = th - sal
  local tl = (sal - (th - bb)) + (sbl - bb)
  local c = sl + th
  local vh = sh + c
  local w = tl + (c - (vh - sh))
  local s = vh + w
  local s_lo = w - (s - vh)
  sh = qah + qbh
  bb = sh - qah
  sl = (qah - (sh - bb)) + (qbh - bb)
  th = qal + qbl
  bb = th - qal
  tl = (qal - (th - bb)) + (qbl - bb)
  c = sl + th
  vh = sh + c
  w = tl + (c - (vh - sh))
  local q = vh + w
  local q_lo = w - (q - vh)
  local n = na + nb
  -- The square's sum is the larger; it is infinite or not a number before the other.
  if not (q < HUGE and s < HUGE and s > -HUGE and n <= MAX_COUNT) then
    return false
  end
  if minb < mina then mina = minb end
  if maxb > maxa then maxa = maxb end
  return struct.pack(SCALAR_FORMAT, SCALAR, n, s, s_lo, q, q_lo, mina, maxa)
end

local function is_scalar(bytes)
  return #bytes == SCALAR_BYTES and struct.unpack('<I4', bytes) == SCALAR
end

-- Header and doubles of any state; nil if the bytes are not one.
local function parse_state(bytes)
  local size = #bytes
  if size < 12 or (size - 4) % 8 ~= 0 then
    return nil
  end
  local version, profile, d = struct.unpack('<BBI2', bytes)
  if version ~= 1 or profile % 2 ~= ORDER_2 or profile > 15 or d < 1 or d > MAX_DIMENSION then
    return nil
  end
  local doubles = {}
  local at = 5
  for i = 1, (size - 4) / 8 do
    doubles[i], at = struct.unpack('<d', bytes, at)
  end
  local fixed = 1 + 2 * d + d * (d + 1) + 2 * d
  if profile % 4 >= POWERS then fixed = fixed + 4 * d end
  if profile % 8 >= LATEST then fixed = fixed + 1 + d end
  local expected = fixed
  if profile >= SPARSE then
    local n = doubles[fixed + 1]
    if not (n and n >= 0 and n <= 1e6) then
      return nil
    end
    expected = fixed + 1 + 2 * math.floor(n)
  end
  if #doubles ~= expected then
    return nil
  end
  return string.sub(bytes, 1, 4), doubles, profile, d
end

-- Merges the (index, count) pairs of a and b from position `at` on; appends their number and them.
local function merge_sparse(a, b, at, out)
  local i, j = at + 1, at + 1
  local count_at = #out + 1
  out[count_at] = 0
  while a[i] or b[j] do
    local index, count
    if not b[j] or (a[i] and a[i] < b[j]) then
      index, count, i = a[i], a[i + 1], i + 2
    elseif not a[i] or b[j] < a[i] then
      index, count, j = b[j], b[j + 1], j + 2
    else
      index, count, i, j = a[i], a[i + 1] + b[j + 1], i + 2, j + 2
    end
    out[#out + 1] = index
    out[#out + 1] = count
    out[count_at] = out[count_at] + 1
  end
end

-- The general case. Returns the merged bytes; nil and a reason if they cannot be merged.
local function merge_any(a, b)
  local shape_a, da, profile, d = parse_state(a)
  local shape_b, db = parse_state(b)
  if not shape_a or not shape_b then
    return nil, 'unreadable'
  end
  if shape_a ~= shape_b then
    return nil, 'shapes'
  end
  local out = { da[1] + db[1] }
  local function add_pairs(pairs_count)
    for _ = 1, pairs_count do
      local i = #out + 1
      out[i], out[i + 1] = add_pair(da[i], da[i + 1], db[i], db[i + 1])
      if not (out[i] < HUGE and out[i] > -HUGE) then
        return false
      end
    end
    return true
  end
  local finite = add_pairs(d + d * (d + 1) / 2)
  if not finite or not (out[1] <= MAX_COUNT) then
    return nil, 'overflow'
  end
  for _ = 1, d do
    local i = #out + 1
    out[i] = db[i] < da[i] and db[i] or da[i]
  end
  for _ = 1, d do
    local i = #out + 1
    out[i] = db[i] > da[i] and db[i] or da[i]
  end
  if profile % 4 >= POWERS and not add_pairs(2 * d) then
    return nil, 'overflow'
  end
  if profile % 8 >= LATEST then
    local first = #out + 1
    local later = da
    for i = first, first + d do
      if db[i] ~= da[i] then
        if db[i] > da[i] then later = db end
        break
      end
    end
    for i = first, first + d do
      out[i] = later[i]
    end
  end
  if profile >= SPARSE then
    merge_sparse(da, db, #out + 1, out)
  end
  local packed = { shape_a }
  for i = 1, #out do
    packed[i + 1] = struct.pack('<d', out[i])
  end
  return table.concat(packed)
end

-- Merged bytes of two states, or nil and 'unreadable', 'shapes' or 'overflow'.
local function merge(a, b)
  local merged = nil
  if #b == SCALAR_BYTES then
    merged = merge_scalar(a, b, 1)
  end
  if merged == false then
    return nil, 'overflow'
  end
  if merged then
    return merged
  end
  return merge_any(a, b)
end
