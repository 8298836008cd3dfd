"""The paper's degradation. Its scale factors stand in 4.1; the kernel, which it does not name, is
MATLAB's, as the field assumes."""

from fsrbench.degrade.named import bicubic, degradation

degradation("bicubic", 1, "antialiased bicubic as MATLAB's imresize, rounded to 8 bit")(bicubic)
